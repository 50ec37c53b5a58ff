_base_ = './detector.py'
custom_imports = dict(imports=['mmdet_adasap', '_utils.seeing_detector'], _delete_=True)
model = dict(_delete_=True, type='SeeingDetector')
